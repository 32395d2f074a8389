// For `#include <cuda_runtime.h>` in a kernel file: the emulator has defined its keywords already.
#pragma once
