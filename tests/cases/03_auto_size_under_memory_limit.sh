#!/bin/bash
# pool.bytes: auto must fit the memory limit of the container, or refuse with a word.
. "$(dirname "$0")/common.sh"

V1=/sys/fs/cgroup/memory; V2=/sys/fs/cgroup; LIM=$((1024*1024*1024))
if [ -w $V1/memory.limit_in_bytes ] || [ -d $V1/ ] && mkdir $V1/$CASE-$$ 2>/dev/null; then G=$V1/$CASE-$$; echo $LIM > $G/memory.limit_in_bytes
elif [ -f $V2/cgroup.controllers ] && mkdir $V2/$CASE-$$ 2>/dev/null && echo $LIM > $V2/$CASE-$$/memory.max; then G=$V2/$CASE-$$
else echo "no memory cgroup can be made"; exit 77; fi
trap 'finish; sleep 0.3; rmdir $G' EXIT
config; sed -i 's/, bytes: 64MiB//; s/extent_bytes: 1MiB/extent_bytes: 8MiB/' $T/c.yaml
( echo $BASHPID > $G/cgroup.procs; exec $BIN/embarlet --config $T/c.yaml > $T/log 2>&1 ) & P=$!; PIDS="$P"
for i in $(seq 60); do grep -q 'active, epoch' $T/log && { echo "runs, pool of $(stat -c %s $POOL) bytes"; exit 0; }; kill -0 $P 2>/dev/null || break; sleep 0.1; done
wait $P; rc=$?; echo "exit status $rc, its words: '$(cat $T/log)', left behind: $(stat -c '%s bytes' $POOL 2>/dev/null)"
[ $rc -eq 2 ] && [ -s $T/log ]
