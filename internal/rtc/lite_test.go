package rtc

import (
	"testing"
)

// overLite makes engines serve lite connections.
var overLite bool

// What holds for viewers holds for those on a lite connection.
func TestLite(t *testing.T) {
	overLite = true
	defer func() { overLite = false }()
	for name, f := range map[string]func(*testing.T){
		"packets":         TestViewerGetsEachPacketInOrderFromAKeyframeOn,
		"before":          TestNothingIsReadBeforeTheConnection,
		"loss":            TestLostPacketsAreSentAgain,
		"keyframes":       TestPLIAndFIRReachTheSource,
		"sender reports":  TestSenderReportsMapAllTracksToOneClock,
		"stats":           TestReceiverReportsBecomeStats,
		"level":           TestNewLevelGoesOutWithTheNextOffer,
		"second offer":    TestSecondOfferNeedsAnAnswerToTheFirst,
		"bad answers":     TestBadAnswersLeaveTheOfferOpen,
		"candidates":      TestEarlyCandidatesAreKeptAndCounted,
		"deadline":        TestNegotiationHasADeadline,
		"leaving":         TestPeerThatLeavesEndsTheViewer,
		"certificate":     TestPeerWithAnotherCertificateIsNotConnected,
		"gone":            TestViewerThatIsGoneDoesNotStopOthers,
		"IPv6":            TestIPv6AloneConnects,
		"many":            TestHundredViewersComeAndGo,
		"answer":          TestOfferOfAPeerIsAnsweredWithItsOwnPayloadTypes,
		"refused section": TestSectionsThatNothingIsSentOnAreRefused,
		"bad offers":      TestOffersThatCannotBeAnsweredAreTold,
	} {
		t.Run(name, f)
	}
}
