"""OpenStack Neutron: projects, scripts, and the log of security groups. ``otc`` shares its objects."""
