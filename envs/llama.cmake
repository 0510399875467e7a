# CMake reads this at the start of llama.cpp's own project (CMAKE_PROJECT_llama.cpp_INCLUDE). llama-cpp-python turns llama.cpp's
# `common` on in the cache, where -D cannot undo it; a plain variable comes before the cache. `common` and the HTTP library that it
# needs are half of the compilation and serve llama.cpp's programs, none of which is in the Python package.
set(LLAMA_BUILD_COMMON OFF)
