"""What the launcher's own exit statuses mean, for a batch system that tells of nothing but them. Pure."""

# Exit status → how the job ended, and what to do about it (docs/protocol.md, section 4; 126 and 127 are the shell's).
LAUNCHER_EXITS = {
    75: ("the node could not reach the hub in time", "Tell the site's admins: hub_url may be wrong for the nodes."),
    77: ("the hub refused its claim", "Start it again; if that fails too, tell the site's admins."),
    126: ("the node's Python could not be run", "Tell the site's admins: the key python names another."),
    127: ("the node has no Python where the job looked", "Tell the site's admins: the key python names another."),
}
