#!/bin/sh
# One line a second: on stdout, and every fifth on stderr.
tick=0
while sleep 1; do
    tick=$((tick + 1))
    echo "tick $tick"
    [ $((tick % 5)) -ne 0 ] || echo "fifth tick" >&2
done
