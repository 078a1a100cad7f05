# add_object(NAME SOURCE ISA flags...): SOURCE for an instruction set, with the flags that the core is
# built and tested with; further flags come last.
set(core_flags -O3 -ffp-contract=fast -fno-exceptions -fno-rtti -fvisibility=hidden -fPIC -Wall -Wextra)
set(march_avx512 -march=x86-64-v4)
set(march_avx2 -march=x86-64-v3)
set(march_avx512bf16 -march=x86-64-v4 -mavx512bf16 -DJRNN_BF16)
set(march_avx512amx ${march_avx512bf16} -DJRNN_AMX) # its instructions are assembly
# For tests: without the instructions of bfloat16, and of AMX.
set(march_avx2bf16 -march=x86-64-v3 -DJRNN_BF16)
set(march_amxemulated -march=x86-64-v4 -DJRNN_BF16 -DJRNN_AMX -DJRNN_AMX_EMULATED)

function(add_object name source isa)
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${source})
  target_compile_options(${name} PRIVATE ${core_flags} ${march_${isa}} -DJRNN_ISA=${isa} ${ARGN})
endfunction()
