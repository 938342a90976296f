"""What every stage needs and no stage owns: errors for people, artefact folders, progress.

Imports nothing from ``preprocessing``, ``modeling`` or ``serving``.
"""

__version__ = "0.1.0"
