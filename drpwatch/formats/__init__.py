"""File formats: the knowledge of MRC and STAR, and the only place where yx becomes xy."""
