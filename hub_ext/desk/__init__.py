"""The desk: what turns decisions into something people can live with. So far its clock."""
