package consul_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/0x1d/goplt/pkg/registry/consul"
)

func TestConfigHidesTheToken(t *testing.T) {
	config := consul.DefaultConfig()
	config.Token, config.Address = "hush", "https://me:hush@agent:8501"
	encoded, err := json.Marshal(map[string]any{"config": config, "pointer": &config})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "config", config, "pointer", &config)
	nested := struct{ Consul consul.Config }{config}
	for _, text := range []string{
		config.String(), fmt.Sprintf("%+v", config), fmt.Sprintf("%#v", config), fmt.Sprintf("%+v", &config), fmt.Sprintf("%+v", nested),
		fmt.Sprintf("%#v", nested), logged.String(), string(encoded),
	} {
		if strings.Contains(text, "hush") || !strings.Contains(text, "[redacted]") {
			t.Errorf("shown as %s", text)
		}
	}
}
