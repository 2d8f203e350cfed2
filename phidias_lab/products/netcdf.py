"""Write a NetCDF file as `methods.formats.netcdf` describes it: every value, attribute and dimension as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phidias_lab.methods.formats.netcdf import File


def write(file: File, path: str | Path) -> None:
    """Write the file; what was read and is written again reads to the same, to the bit.

    The bytes are those of the NetCDF library: the order of attributes within a variable is its own (the fill value comes
    first).
    """
    import netCDF4

    with netCDF4.Dataset(str(path), mode="w", format=file.model) as data:
        data.set_fill_off()
        for name, size in file.dimensions.items():
            data.createDimension(name, None if name in file.unlimited else size)
        for name, value in file.attributes.items():
            data.setncattr(name, value)
        for name, variable in file.variables.items():
            kind = str if variable.data.dtype == object else variable.data.dtype
            given = dict(variable.attributes)
            made = data.createVariable(
                name, kind, variable.dims, fill_value=given.pop("_FillValue", None), **variable.storage
            )
            for key, value in given.items():
                made.setncattr(key, value)
        for name, variable in file.variables.items():
            made = data.variables[name]
            made.set_auto_maskandscale(False)
            made.set_auto_chartostring(False)
            if variable.data.size or not variable.dims:
                made[...] = variable.data if variable.dims else np.asarray(variable.data)[()]
