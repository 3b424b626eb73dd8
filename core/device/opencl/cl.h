/* The part of OpenCL 1.2 that Nyx calls, opened at run time: types, numbers and
 * signatures follow the Khronos specification, so no headers are needed to build. Read
 * next: opencl.c. */
#ifndef NYX_DEVICE_OPENCL_CL_H
#define NYX_DEVICE_OPENCL_CL_H

#include <stddef.h>
#include <stdint.h>

typedef struct cl_platform *cl_platform;
typedef struct cl_device *cl_device;
typedef struct cl_context *cl_context;
typedef struct cl_queue *cl_queue;
typedef struct cl_mem *cl_mem;
typedef struct cl_program *cl_program;
typedef struct cl_kernel *cl_kernel;
typedef struct cl_event *cl_event;
typedef int32_t cl_int;

enum {
  CL_SUCCESS = 0,
  CL_MEM_READ_WRITE = 1,
  CL_TRUE = 1,
  CL_DEVICE_MAX_WORK_GROUP_SIZE = 0x1004,
  CL_DEVICE_GLOBAL_MEM_SIZE = 0x101F,
  CL_DEVICE_NAME = 0x102B,
  CL_DEVICE_EXTENSIONS = 0x1030,
  CL_MEM_SIZE = 0x1102,
  CL_PROGRAM_BUILD_LOG = 0x1183,
  CL_DEVICE_NOT_FOUND = -1,
  CL_MEM_OBJECT_ALLOCATION_FAILURE = -4,
  CL_OUT_OF_RESOURCES = -5,
  CL_OUT_OF_HOST_MEMORY = -6,
  CL_INVALID_BUFFER_SIZE = -61,
  CL_PLATFORM_NOT_FOUND_KHR = -1001
};
#define CL_DEVICE_TYPE_ALL 0xFFFFFFFFu

/* CL_FUNCTION(result, name, arguments): every function that is looked up. */
#define CL_FUNCTIONS                                                                     \
  CL_FUNCTION(cl_int, GetPlatformIDs, (uint32_t, cl_platform *, uint32_t *))             \
  CL_FUNCTION(cl_int, GetDeviceIDs,                                                      \
              (cl_platform, uint64_t, uint32_t, cl_device *, uint32_t *))                \
  CL_FUNCTION(cl_int, GetDeviceInfo, (cl_device, uint32_t, size_t, void *, size_t *))    \
  CL_FUNCTION(cl_context, CreateContext,                                                 \
              (const intptr_t *, uint32_t, const cl_device *,                            \
               void (*)(const char *, const void *, size_t, void *), void *, cl_int *))  \
  CL_FUNCTION(cl_queue, CreateCommandQueue, (cl_context, cl_device, uint64_t, cl_int *)) \
  CL_FUNCTION(cl_mem, CreateBuffer, (cl_context, uint64_t, size_t, void *, cl_int *))    \
  CL_FUNCTION(cl_int, ReleaseMemObject, (cl_mem))                                        \
  CL_FUNCTION(cl_int, GetMemObjectInfo, (cl_mem, uint32_t, size_t, void *, size_t *))    \
  CL_FUNCTION(cl_program, CreateProgramWithSource,                                       \
              (cl_context, uint32_t, const char **, const size_t *, cl_int *))           \
  CL_FUNCTION(cl_int, BuildProgram,                                                      \
              (cl_program, uint32_t, const cl_device *, const char *,                    \
               void (*)(cl_program, void *), void *))                                    \
  CL_FUNCTION(cl_int, GetProgramBuildInfo,                                               \
              (cl_program, cl_device, uint32_t, size_t, void *, size_t *))               \
  CL_FUNCTION(cl_int, ReleaseProgram, (cl_program))                                      \
  CL_FUNCTION(cl_kernel, CreateKernel, (cl_program, const char *, cl_int *))             \
  CL_FUNCTION(cl_int, SetKernelArg, (cl_kernel, uint32_t, size_t, const void *))         \
  CL_FUNCTION(cl_int, EnqueueNDRangeKernel,                                              \
              (cl_queue, cl_kernel, uint32_t, const size_t *, const size_t *,            \
               const size_t *, uint32_t, const cl_event *, cl_event *))                  \
  CL_FUNCTION(cl_int, EnqueueReadBuffer,                                                 \
              (cl_queue, cl_mem, uint32_t, size_t, size_t, void *, uint32_t,             \
               const cl_event *, cl_event *))                                            \
  CL_FUNCTION(cl_int, EnqueueWriteBuffer,                                                \
              (cl_queue, cl_mem, uint32_t, size_t, size_t, const void *, uint32_t,       \
               const cl_event *, cl_event *))                                            \
  CL_FUNCTION(cl_int, Finish, (cl_queue))

typedef struct cl_library {
#define CL_FUNCTION(result, name, arguments) result(*name) arguments;
  CL_FUNCTIONS
#undef CL_FUNCTION
} cl_library;

#endif
