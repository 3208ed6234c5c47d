# Included by cmake at the end of each project() of llama.cpp (CMAKE_PROJECT_INCLUDE); see data/llama_cpp.yaml.
if(PROJECT_NAME STREQUAL "ggml")
  # The arithmetic: full optimisation, and its own compilation units, which define the same names.
  set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
  set(CMAKE_UNITY_BUILD OFF)
  # gcc optimises away most of what ggml configures Intel's tile registers with, and llama-server ends with SIGILL
  # (ggml-org/llama.cpp#26954; seen with gcc 12 on Sapphire Rapids). Elsewhere no compiler knows these options.
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mno-amx-tile PIPELINE_KNOWS_AMX)
  if(PIPELINE_KNOWS_AMX)
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
  endif()
elseif(PROJECT_NAME STREQUAL "llama.cpp")
  # json.cpp specialises templates that its neighbours have instantiated by then; mtmd-helper refuses mtmd's
  # internal headers. Both stay out of the unity build. Deferred, because the targets are not there yet.
  cmake_language(DEFER CALL set_source_files_properties
    "${CMAKE_SOURCE_DIR}/common/json.cpp"
    TARGET_DIRECTORY llama-common PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  cmake_language(DEFER CALL set_source_files_properties
    "${CMAKE_SOURCE_DIR}/tools/mtmd/mtmd-helper.cpp" "${CMAKE_SOURCE_DIR}/tools/mtmd/mtmd-helper-gen.cpp"
    TARGET_DIRECTORY mtmd PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  # One target for all tools, so that make counts its percentage once and keeps every core busy.
  cmake_language(DEFER CALL add_custom_target pipeline-tools)
  cmake_language(DEFER CALL add_dependencies pipeline-tools ${PIPELINE_TOOLS})
  foreach(tool IN LISTS PIPELINE_TOOLS)
    cmake_language(EVAL CODE
      "cmake_language(DEFER CALL target_sources ${tool} PRIVATE [[${CMAKE_CURRENT_LIST_DIR}/llama_cpp_flush.cpp]])")
  endforeach()
endif()
