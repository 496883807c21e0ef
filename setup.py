"""conf/ stands beside extrap/ in a checkout, and within it where extrap is installed; pyproject.toml says the rest."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["extrap*"]), "extrap.conf"],
    package_dir={"extrap.conf": "conf"},
    package_data={
        "extrap.report": ["*.mplstyle"],
        "extrap.report.page": ["*.js", "*.css", "*.html", "vendor/plot.min.js", "vendor/LICENSES.txt"],
        "extrap.conf": ["**/*.yaml"],
    },
)
