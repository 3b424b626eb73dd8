/* The op of this extension; module.c registers it. */
#ifndef NYX_EXAMPLE_SOFTCLIP_H
#define NYX_EXAMPLE_SOFTCLIP_H

#include <nyx/nyx.h>

extern const nyx_op nyx_example_softclip;

#endif
