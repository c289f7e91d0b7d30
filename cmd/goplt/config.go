package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (c *command) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration, secrets redacted",
		Long:  "Print the effective configuration: every key, its value, and where the value comes from. Secrets are redacted.",
		Args:  between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			loaded, err := c.load()
			if err != nil {
				return err
			}
			if c.output == "json" {
				return printJSON(c.stdout, loaded.Redacted())
			}
			return loaded.YAML(c.stdout)
		},
	}
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			version := buildVersion()
			if c.output == "json" {
				return printJSON(c.stdout, version)
			}
			_, err := fmt.Fprintf(c.stdout, "goplt %s (%s)\n", version.Version, version.Go)
			return err
		},
	}
}

type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

// buildVersion reads the version that the Go toolchain stamped into the binary.
func buildVersion() version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version{Version: "unknown"}
	}
	v := version{Version: info.Main.Version, Go: info.GoVersion}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Revision = setting.Value
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}
