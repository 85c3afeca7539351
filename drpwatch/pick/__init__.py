"""The picking core: tensors in, tensors out."""
