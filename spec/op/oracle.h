/* What oracle.c calls in the two instances of oracle_rows.h; NAN for rows a type lacks.
 */
double oracle_float_forward(const char *row, double x, double y, double z, double p,
                            double q);
double oracle_int_forward(const char *row, double x, double y, double z, double p,
                          double q);
double oracle_float_reduce(const char *row, const double *values, int count, double p);
double oracle_int_reduce(const char *row, const double *values, int count, double p);
