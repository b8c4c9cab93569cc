#!/bin/sh
# The Debian mirror that this machine's own apt uses (the first one that is not for security updates).
cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
  sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' |
  grep -E '^(https?|mirror|file):' | grep -v security | head -1 | grep . ||
  { echo "no Debian mirror in /etc/apt" >&2; exit 1; }
