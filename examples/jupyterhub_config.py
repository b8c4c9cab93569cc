# A hub with HEPSpawner, line by line. Copy it to /etc/jupyterhub/jupyterhub_config.py.

c = get_config()  # noqa: F821

# These two lines are all that HEPSpawner needs. Everything about images and machines stands in the site file, which
# is read again when it changes: no restart. Try it first with `hepspawner check /etc/jupyterhub/site.yaml`.
c.JupyterHub.spawner_class = "hepspawner"
c.HEPSpawner.site = "/etc/jupyterhub/site.yaml"

# Directories with templates of your own; each file in them (form.html, progress.html, failure.html, unavailable.html)
# replaces ours. One with an error is told in the hub's log, and ours is used.
# c.HEPSpawner.template_paths = ["/etc/jupyterhub/templates"]

# Where people reach the hub, and how it knows them: your choice. PAM takes the machine's accounts.
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.authenticator_class = "pam"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = set()

# The proxy of PyPI's configurable-http-proxy needs no Node.js. Leave this out if you have the one of npm.
# c.ConfigurableHTTPProxy.command = ["/opt/jupyterhub/bin/configurable-http-proxy"]

# JupyterHub's own settings of a spawner mean what they always mean.
# c.Spawner.environment = {"SITE": "example"}      # for every server
# c.Spawner.notebook_dir = "~/notebooks"           # where the file browser begins
# c.Spawner.default_url = "/lab"                   # unless the image says otherwise
# c.Spawner.start_timeout = 600                    # seconds from Start until the server answers, waiting included
#                                                  # (default: 600; a day where a backend has a queue)

# Leave the servers running when the hub stops; it finds them again when it is back.
c.JupyterHub.cleanup_servers = False
