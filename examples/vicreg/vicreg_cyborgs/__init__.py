"""VICReg (Bardes et al., ICLR 2022) for cyborgs: the worked example of docs/add_a_method.md."""
