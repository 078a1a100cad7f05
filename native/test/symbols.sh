# symbols.sh OBJECTS: each has one symbol that others see, its table, and none that is weak.
for object; do
  shared=$(nm --defined-only "$object" | awk '$2 ~ /[A-Zuvw]/ && $2 != "U"' | grep -v ' [DR] jrnn_core_[a-z0-9]*$')
  [ -z "$shared" ] || { echo "$object: symbols beside the table:"; echo "$shared"; exit 1; }
  nm --defined-only "$object" | grep -q ' [DR] jrnn_core_' || { echo "$object: no table"; exit 1; }
done
