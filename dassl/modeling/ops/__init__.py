"""Operations; see :mod:`dassl.modeling.ops.utils`."""
