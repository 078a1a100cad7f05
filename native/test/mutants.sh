# mutants.sh PROGRAM:ISA ...: each must end with 1, which says that a case failed.
missed=0
for mutant; do
  program=${mutant%:*}
  found=$(./"$program" --isa "${mutant#*:}" --cases 3000 2>&1)
  status=$?
  case $status:$found in
    1:*) echo "$program found: $(echo "$found" | head -1)" ;;
    0:*"NOT TESTED"*) echo "$program: $found" ;;
    *) echo "$program NOT FOUND: $found"; missed=1 ;;
  esac
done
exit $missed
