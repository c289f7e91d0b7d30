// Package script is a Consul agent on a real socket that a test makes misbehave, where a real one cannot be made to: its index goes backwards or is
// garbage, its answers are errors, cut short or endless.
//
//	agent := script.Start(t, script.Instance("auth-1", "127.0.0.1", 8080))
//	agent.Set(…)              other instances, at the next index
//	agent.Rewind(5, …)        other instances at an index of before, as after a restored snapshot
//	agent.AnswerNext(3, script.Status(500))
//	agent.Asked()             every query so far, and when it came
//
// Left alone it answers GET /v1/health/service/NAME as an agent does: it honours index and wait, adds no jitter, wakes who waits when something
// changes, and lets go of who went away. Of the rest of Consul's API it has what a registration needs to succeed.
package script
