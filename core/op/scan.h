/* Scans, and those on devices that have no kernel for them. Read next: scan_rows.c,
 * scan.c. */
#ifndef NYX_OP_SCAN_H
#define NYX_OP_SCAN_H

#include "ops.h"

/* What a scan is asked for besides its inputs. */
typedef struct nyx__scan_way {
  nyx__op_id
      op; /* cumsum, cumprod or linear_scan; logcumsumexp and cumargmax on the CPU */
  int dim;
  bool reverse, exclusive;
  bool least; /* of cumargmax: cumargmin */
} nyx__scan_way;

/* Computes call->out[0] with elementwise rows on the call's device. */
nyx_status nyx__scan_rows(nyx_call *c, const nyx__scan_way *way) NYX_MUST_CHECK;

#endif
