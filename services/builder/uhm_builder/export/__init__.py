"""Images as disks that boot by themselves, in the formats that hypervisors read."""
