"""What works off the runs of a sweep: `hydra/launcher=NAME`, a file in conf/hydra/launcher that names a class here.

A class takes its options and has `run(configs)`: it runs each config by run_one in a process of its own, and returns when
the last has ended, however it ended; what became of a run stands in its folder. Launchers of other packages are Hydra's.
"""
