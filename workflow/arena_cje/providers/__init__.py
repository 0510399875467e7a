"""Those who answer and grade: one file each, behind the protocol of `judging.Grader`."""
