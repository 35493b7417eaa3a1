"""What other programs read: masks as COCO instances and panoptic, and for Label Studio."""
