package consul_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

// Fault 13.
func TestMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAgent(entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthPassing))
		r, _ := open(t, f)
		w := watch(t, r)
		expect(t, w, "1", "2")
		for _, check := range []string{"_service_maintenance:2", "_node_maintenance"} {
			in := entry("2", 80, api.HealthPassing)
			in.Checks = append(in.Checks, &api.HealthCheck{CheckID: check, Status: api.HealthCritical})
			began := time.Now()
			f.set(entry("1", 80, api.HealthPassing), in)
			expect(t, w, "1")
			if took := time.Since(began); took > time.Second {
				t.Errorf("maintenance was seen after %v", took)
			}
			f.set(entry("1", 80, api.HealthPassing), entry("2", 80, api.HealthPassing))
			expect(t, w, "1", "2")
		}
	})
}
