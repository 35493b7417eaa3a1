"""CYBORGS: contrastively bootstrapping object representations by grounding in segmentation."""
