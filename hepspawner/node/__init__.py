"""The part of hepspawner that runs on the node, beside the server."""
