package main

import "github.com/spf13/cobra"

// outreachCommands are the commands of outreach, in the order of a campaign.
func outreachCommands() []*cobra.Command {
	return []*cobra.Command{
		newOutreachImport(), newOutreachFollow(), newOutreachReport(), newOutreachImpact(),
		newOutreachShow(), newOutreachTemplate(), newOutreachLint(), newOutreachPreview(),
		newOutreachPlan(), newOutreachSend(), newOutreachStop(), newOutreachResume(), newOutreachDoubts(), newOutreachBounce(), newOutreachCall(),
		newOutreachForget(), newOutreachExport(), newOutreachAudit(),
	}
}
