#!/bin/sh
# Prints which Debian package has which GStreamer elements, as the archive's own
# metadata says: run `apt-get update` first. `make elements` writes elements.txt.
set -eu
. /etc/os-release
echo "# Made by elements.sh from the package lists of $PRETTY_NAME: do not edit."
echo "# What those lists don't know is in elements-more.txt."
apt-cache dumpavail | awk '
	/^Package:/ { package = $2 }
	/^Gstreamer-Elements:/ { for (i = 2; i <= NF; i++) { sub(/,$/, "", $i); print package, $i } }' | LC_ALL=C sort -u | awk '
	$1 != package || length(line $2) > 125 { if (line) print line; line = "" }
	$1 != package { package = $1; print package }
	{ line = line " " $2 }
	END { print line }'
