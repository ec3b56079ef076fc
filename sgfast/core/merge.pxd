# What several planes found, as one: counters added up, rows of all of them in one order. Nobody may judge meanwhile.

from libc.stddef cimport size_t

from sgfast.core.conntrack.table cimport FlowRow
from sgfast.core.pipeline.plane cimport Plane

# `rows` and `counts` are of `n` lists, each in the order of the flows' first packets; so is the array.
cdef object merged_flows(FlowRow** rows, const Py_ssize_t* counts, int n)
# (rows, packets of others). `offset`: of one of the tallies in a plane.
cdef object merged_tally(Plane** planes, int n, size_t offset)
# (rows, untold)
cdef object merged_cuts(Plane** planes, int n)
cdef object merged_rule_counts(Plane** planes, int n, Py_ssize_t rules)
# By name; verdicts and reasons as lists by their number.
cdef dict merged_counters(Plane** planes, int n)
