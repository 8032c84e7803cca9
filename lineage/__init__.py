"""What is known of models and data, and who approved what. Approves nothing by itself: `lineage.approvals` asks the policy."""
