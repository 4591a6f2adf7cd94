"""What pyproject.toml cannot say yet: the part in C, which is left out where no compiler is at hand."""

from setuptools import Extension, setup

IN_C = "src/petal/checkpoints/codec/c"

setup(
    ext_modules=[
        Extension(
            "petal.checkpoints.codec._many_models",
            [f"{IN_C}/{name}.c" for name in ("module", "looks", "comparing", "again", "reading")],
            depends=[f"{IN_C}/models.h"],
            optional=True,
        ),
    ]
)
