import numpy as np

RESULT_DTYPE: np.dtype[np.void]
RESOLVED_DTYPE: np.dtype[np.void]
HEADER_DTYPE: np.dtype[np.void]
FLOW_DTYPE: np.dtype[np.void]
TALLY_DTYPE: np.dtype[np.void]
EVENT_DTYPE: np.dtype[np.void]
REMEMBERED_DTYPE: np.dtype[np.void]
CUT_DTYPE: np.dtype[np.void]
RULE_COUNT_DTYPE: np.dtype[np.void]
