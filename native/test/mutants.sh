# mutants.sh PROGRAM:ISA ...: each must end with 1, which says that a case failed.
missed=0
for mutant; do
  program=${mutant%:*}
  found=$(./"$program" --isa "${mutant#*:}" --cases 3000 2>&1)
  if [ $? -eq 1 ]; then echo "$program found: $(echo "$found" | head -1)"
  else echo "$program NOT FOUND: $found"; missed=1; fi
done
exit $missed
