"""Parts that Moment-DETR, QD-DETR and TR-DETR share, and adapters of their descendants in lighthouse."""
