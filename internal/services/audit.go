package services

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"math"

	"connectrpc.com/connect/v2"

	auditv1 "github.com/0x1d/goplt/gen/goplt/audit/v1"
	"github.com/0x1d/goplt/gen/goplt/audit/v1/auditv1connect"
	"github.com/0x1d/goplt/pkg/services"
)

// maxEmptyPages is how many empty pages in a row Query passes over before it calls the server broken: enough for a server that looks
// through a large log in pieces, an end for one that would have us ask forever.
const maxEmptyPages = 100

type auditClient struct {
	rpc auditv1connect.AuditServiceClient
}

var _ services.AuditServiceClient = (*auditClient)(nil)

// NewAuditClient returns a client of the audit service that calls through client.
func NewAuditClient(client *connect.Client) services.AuditServiceClient {
	return &auditClient{rpc: auditv1connect.NewAuditServiceClient(client)}
}

// Record implements [services.AuditServiceClient]. An action without an ID gets 130 random bits as text here, above everything that
// may send the call again, so that each attempt carries the same one.
func (c *auditClient) Record(ctx context.Context, action services.Action) error {
	if action.ID == "" {
		action.ID = rand.Text()
	}
	_, err := call(ctx, "audit.Record", c.rpc, auditv1connect.AuditServiceClient.Record,
		&auditv1.RecordRequest{Action: actionToProto(&action)})
	return err
}

// Query implements [services.AuditServiceClient]. The domain keeps the token of the next page in the last entry of a page, which an
// empty page does not have. No implementation of the domain's interface sends an empty page that is not the last, but the protocol allows
// it; then Query asks for the next page itself, until one has entries or is the last.
func (c *auditClient) Query(ctx context.Context, filters services.AuditFilters) ([]services.AuditLog, error) {
	const operation = "audit.Query"
	req := filtersToProto(filters)
	for range maxEmptyPages {
		res, err := call(ctx, operation, c.rpc, auditv1connect.AuditServiceClient.Query, req)
		if err != nil {
			return nil, err
		}
		if len(res.GetLogs()) > 0 || res.GetNextPageToken() == "" {
			return pageFromProto(res), nil
		}
		if res.GetNextPageToken() == req.GetPageToken() {
			return nil, newCallError(ctx, operation, connect.NewError(connect.CodeInternal, "an empty page names itself as the next"))
		}
		// A new message: the transport may still hold the old one.
		req = filtersToProto(filters)
		req.PageToken = res.GetNextPageToken()
	}
	return nil, newCallError(ctx, operation, connect.Errorf(connect.CodeInternal, "%d empty pages in a row", maxEmptyPages))
}

type auditHandler struct {
	impl   services.AuditServiceClient
	logger *slog.Logger
}

var _ auditv1connect.AuditServiceHandler = (*auditHandler)(nil)

// RegisterAudit makes server answer the calls of the audit service with impl. What callers must not learn of its failures goes to logger,
// [slog.Default] if it is nil. An action whose caller left out the ID reaches impl without one.
func RegisterAudit(server *connect.Server, impl services.AuditServiceClient, logger *slog.Logger) {
	auditv1connect.RegisterAuditServiceHandler(server, &auditHandler{impl: impl, logger: logger})
}

// Record implements [auditv1connect.AuditServiceHandler].
func (h *auditHandler) Record(ctx context.Context, req *auditv1.RecordRequest) (*auditv1.RecordResponse, error) {
	err := h.impl.Record(ctx, actionFromProto(req.GetAction()))
	return reply(ctx, h.logger, &auditv1.RecordResponse{}, err)
}

// Query implements [auditv1connect.AuditServiceHandler].
func (h *auditHandler) Query(ctx context.Context, req *auditv1.QueryRequest) (*auditv1.QueryResponse, error) {
	page, err := h.impl.Query(ctx, filtersFromProto(req))
	return reply(ctx, h.logger, pageToProto(page), err)
}

// actionToProto copies the metadata: the caller may change its map when the call has returned, while a cancelled attempt still holds the
// message.
func actionToProto(action *services.Action) *auditv1.Action {
	return &auditv1.Action{
		Id:         action.ID,
		UserId:     action.UserID,
		Action:     action.Action,
		Resource:   action.Resource,
		Metadata:   maps.Clone(action.Metadata),
		OccurredAt: timeToProto(action.OccurredAt),
	}
}

func actionFromProto(action *auditv1.Action) services.Action {
	return services.Action{
		ID:         action.GetId(),
		UserID:     action.GetUserId(),
		Action:     action.GetAction(),
		Resource:   action.GetResource(),
		Metadata:   action.GetMetadata(),
		OccurredAt: timeFromProto(action.GetOccurredAt()),
	}
}

// filtersToProto clamps a page size that the message cannot hold: the service caps it far below.
func filtersToProto(filters services.AuditFilters) *auditv1.QueryRequest {
	return &auditv1.QueryRequest{
		UserId:    filters.UserID,
		Action:    filters.Action,
		Resource:  filters.Resource,
		Since:     timeToProto(filters.Since),
		Until:     timeToProto(filters.Until),
		PageSize:  int32(max(math.MinInt32, min(filters.PageSize, math.MaxInt32))),
		PageToken: filters.PageToken,
	}
}

func filtersFromProto(req *auditv1.QueryRequest) services.AuditFilters {
	return services.AuditFilters{
		UserID:    req.GetUserId(),
		Action:    req.GetAction(),
		Resource:  req.GetResource(),
		Since:     timeFromProto(req.GetSince()),
		Until:     timeFromProto(req.GetUntil()),
		PageSize:  int(req.GetPageSize()),
		PageToken: req.GetPageToken(),
	}
}

// pageToProto takes the next page's token from the last entry; tokens of other entries have no place on the wire and no meaning.
func pageToProto(page []services.AuditLog) *auditv1.QueryResponse {
	res := &auditv1.QueryResponse{}
	if len(page) == 0 {
		return res
	}
	res.NextPageToken = page[len(page)-1].PageToken
	res.Logs = make([]*auditv1.AuditLog, len(page))
	for i := range page {
		res.Logs[i] = &auditv1.AuditLog{Action: actionToProto(&page[i].Action), RecordedAt: timeToProto(page[i].RecordedAt)}
	}
	return res
}

// pageFromProto puts the next page's token into the last entry.
func pageFromProto(res *auditv1.QueryResponse) []services.AuditLog {
	if len(res.GetLogs()) == 0 {
		return nil
	}
	page := make([]services.AuditLog, len(res.GetLogs()))
	for i, entry := range res.GetLogs() {
		page[i] = services.AuditLog{Action: actionFromProto(entry.GetAction()), RecordedAt: timeFromProto(entry.GetRecordedAt())}
	}
	page[len(page)-1].PageToken = res.GetNextPageToken()
	return page
}
