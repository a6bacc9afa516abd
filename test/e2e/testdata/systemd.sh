#!/bin/bash
# systemd.sh DIR PROGRAM: runs the real systemd as process 1 of namespaces of its own,
# with DIR/etc laid over /etc, a user "gateway", and PROGRAM as /usr/local/bin/gateway.
# Nothing of it is left when that process ends. Needs root. It starts no unit but what is asked for.
set -euo pipefail
dir=$1 program=$2 stage=${3:-}

private_copy() { # of a folder, which is written to without a trace
  mkdir "$dir/layers/$2" "$dir/layers/$2.work"
  mount -t overlay -o "lowerdir=$1,upperdir=$dir/layers/$2,workdir=$dir/layers/$2.work" none "$1"
}

case $stage in
'')
  exec unshare --mount /bin/bash "$0" "$dir" "$program" outside
  ;;
outside) # a control group, which the namespace will have as its root
  mkdir "$dir/groups" "$dir/layers"
  mount -t cgroup2 none "$dir/groups"
  group=$dir/groups/gateway-test-$$
  mkdir "$group"
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --fork --pid --cgroup --uts --ipc --mount /bin/bash "$0" "$dir" "$program" inside
  ) || true # it is killed
  find "$group" -depth -type d -exec rmdir {} \;
  ;;
inside)
  mount -t proc proc /proc
  mount --bind /proc/sys /proc/sys
  mount -o remount,ro,bind /proc/sys # this machine's settings aren't its own
  mount -t cgroup2 none /sys/fs/cgroup
  mount -t tmpfs -o mode=755 none /run
  mount -t tmpfs none "$dir/layers"
  private_copy /etc etc
  private_copy /var/lib lib
  rm -rf /etc/systemd/system
  cp -r "$dir/etc/." /etc/
  echo gateway:x:977:977::/var/lib/gateway:/usr/sbin/nologin >>/etc/passwd
  echo gateway:x:977: >>/etc/group
  mount -t tmpfs -o mode=755 none /usr/local/bin
  touch /usr/local/bin/gateway
  mount --bind "$program" /usr/local/bin/gateway
  printf '[Unit]\nDefaultDependencies=no\n' >/etc/systemd/system/nothing.target
  cd /
  exec env -i container=test PATH="$PATH" /usr/lib/systemd/systemd --unit=nothing.target --show-status=0 </dev/null
  ;;
esac
