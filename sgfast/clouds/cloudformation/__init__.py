"""CloudFormation templates of AWS."""
