"""One ledger of GPUs and GPU-hours over sector, institution, project and person: who may start what, until when."""
