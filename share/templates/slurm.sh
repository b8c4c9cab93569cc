#!/bin/sh
{% for line in directives %}
#SBATCH {{ line }}
{% endfor %}
# A server of JupyterHub, by HEPSpawner. The launcher, a small Python program, comes with the job: nothing is needed on
# the node but a Python. It claims the server's command and environment from the hub.
{% block before %}
{% endblock %}

exec {{ python }} -I -S /dev/fd/3 3<<'END_OF_LAUNCHER' <<'END_OF_JOB'
{{ launcher }}
END_OF_LAUNCHER
{{ job }}
END_OF_JOB
