"""The lake: data kept ready as Zarr cubes and Parquet tables, and the catalogues on top. The only place that knows intake.

from phidias_lab.lake import catalog
catalog.entries()                                       what there is, without opening any data
catalog.open_entry("ocean.observations", {"region": "-20,40,0,55"})
"""

import warnings

# intake says this at each use of an entry with a text parameter, although no shell command was asked for.
warnings.filterwarnings("ignore", message="Shell command not executed", category=UserWarning)
