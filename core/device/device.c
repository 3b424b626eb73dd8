/* Finding devices by name. Read next: device.h, cpu/cpu.c, opencl/opencl.c. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"

/* "opencl" or "opencl:1": the number after the colon, 0 without one; -1 for another name.
 */
static int numbered(const char *name, const char *kind) {
  size_t length = strlen(kind);
  if (strncmp(name, kind, length) != 0) return -1;
  if (name[length] == '\0') return 0;
  char *end;
  long number = name[length] == ':' ? strtol(name + length + 1, &end, 10) : -1;
  return number >= 0 && number < 64 && *end == '\0' && end != name + length + 1
             ? (int)number
             : -1;
}

nyx_status nyx_device_find(nyx_context *ctx, const char *name, nyx_device **out) {
  if (strcmp(name, "cpu") == 0) {
    *out = nyx__cpu();
    return NYX_OK;
  }
  int number = numbered(name, "opencl");
  if (number >= 0) return nyx__opencl(ctx, number, out);
  return nyx__error(ctx, DEVICE_UNKNOWN, name, "cpu, opencl, opencl:N");
}

const char *nyx_device_name(const nyx_device *device) {
  return device->name;
}
const char *nyx_device_describe(const nyx_device *device) {
  return device == nyx__cpu() ? nyx__cpu_describe() : device->describe;
}
