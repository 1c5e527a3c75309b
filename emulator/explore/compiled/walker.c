/* All of it: one module, made by `build`. */
#include "collapse.c"
#include "graph.c"
#include "twister.c"
#include "strategies.c"
#include "runs.c"
#include "exhaustive.c"
#include "learning.c"
#include "share.c"
