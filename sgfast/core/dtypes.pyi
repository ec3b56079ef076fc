from typing import Any

import numpy as np

RESULT_DTYPE: np.dtype[Any]
RESOLVED_DTYPE: np.dtype[Any]
HEADER_DTYPE: np.dtype[Any]
FLOW_DTYPE: np.dtype[Any]
TALLY_DTYPE: np.dtype[Any]
CUT_DTYPE: np.dtype[Any]
RULE_COUNT_DTYPE: np.dtype[Any]
