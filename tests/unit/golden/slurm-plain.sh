#!/bin/sh
#SBATCH --no-requeue
#SBATCH --job-name=jupyter-c0ffee
#SBATCH --comment=hepspawner:c0ffee:0f0f0f:alice:
#SBATCH --chdir=/
#SBATCH --output=/dev/null
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2048M
#SBATCH --time=0-08:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --partition=cpu
# A server of JupyterHub, by HEPSpawner. The launcher, a small Python program, comes with the job: nothing is needed on
# the node but a Python. It claims the server's command and environment from the hub.

exec python3 -I -S /dev/fd/3 3<<'END_OF_LAUNCHER' <<'END_OF_JOB'
LAUNCHER
END_OF_LAUNCHER
{"ticket": "t", "hub": "http://hub"}
END_OF_JOB
